-- Give up a generation that is being built: writes go to the live one only, and what was built can be retired.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce   ARGV[3]  the caller's token
-- Returns  {'OK', 1 when it was being built} or {'FENCED', newest token}

if fenced(ARGV[3]) then
  return {'FENCED', state[7]}
end
if building ~= generation then
  return {'OK', 0}
end
redis.call('UNLINK', built_key())
redis.call('HSET', KEYS[1], 'building', '')
begin_retiring(generation)
return {'OK', 1}
