-- Keep the lease for longer.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  nonce   ARGV[2]  token   ARGV[3]  until (Unix milliseconds)
-- Returns  {'OK'} or {'FENCED', newest token}

if fenced(ARGV[2]) then
  return {'FENCED', newest}
end
redis.call('HSET', KEYS[1], 'until', ARGV[3])
return {'OK'}
