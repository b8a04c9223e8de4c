-- Keep the lease for longer.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  token   ARGV[2]  until (Unix milliseconds)
-- Returns  {'OK'} or {'FENCED', newest token}

if fenced(ARGV[1]) then
  return {'FENCED', newest}
end
redis.call('HSET', KEYS[1], 'until', ARGV[2])
return {'OK'}
