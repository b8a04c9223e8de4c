-- Take note of a trainer's token, and tell what is in use: from this reply on nobody with an older one begins anything.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  no generation: 0   ARGV[2]  the index's nonce   ARGV[3]  the caller's token
-- Returns  {'OK', live, building, those retiring with commas between}   {'NONE'} nothing is live yet
--          {'FENCED', newest token}

if fenced(ARGV[3]) then
  return {'FENCED', state[7]}
end
if live == '0' then -- rule: its first generation is still to come
  return {'NONE'}
end
return {'OK', live, building, retiring}
