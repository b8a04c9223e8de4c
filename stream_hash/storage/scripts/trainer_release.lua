-- Give the lease back, so that the next need not wait for its end.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  nonce   ARGV[2]  token
-- Returns  {'OK'} or {'FENCED', newest token}

if fenced(ARGV[2]) then
  return {'FENCED', newest}
end
redis.call('HDEL', KEYS[1], 'holder', 'until')
return {'OK'}
