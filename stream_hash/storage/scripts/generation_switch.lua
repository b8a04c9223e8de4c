-- Let a generation that was built go live, in place of the one before. Repeating it changes nothing.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce   ARGV[3]  the caller's token
-- Returns  {'OK'} it is live   {'INCOMPLETE', items, members of each table}   {'STALE', live, building}
--          {'FENCED', newest token}
--
-- Rules
--   1. Only a complete generation goes live: as many members in each table as there are items.
--   2. All of it changes at once; from then on the old generation is one to be retired.

if fenced(ARGV[3]) then
  return {'FENCED', state[7]}
end
if live == generation then
  return {'OK'}
end
if building ~= generation then -- rule: being built
  return {'STALE', live, building}
end
local reply, complete = {'INCOMPLETE', items}, true
for table_number = 0, tables - 1 do
  local members = redis.call('HGET', KEYS[1], 'members:' .. generation .. ':' .. table_number) or '0'
  reply[table_number + 3] = members
  complete = complete and members == items
end
if not complete then -- rule: complete
  return reply
end
redis.call('UNLINK', built_key())
redis.call('HSET', KEYS[1], 'live', generation, 'building', '')
begin_retiring(live)
return {'OK'}
