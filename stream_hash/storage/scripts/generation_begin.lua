-- Begin to build a generation, or go on with it: from this reply on, every write goes to it too.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce   ARGV[3]  the caller's token
-- Returns  {'OK', item numbers given out so far}: those are to be scanned; the writers see to all later ones
--          {'LIVE'} it is live already   {'BUSY', generation} another one is being built
--          {'PAST', live} it was live or abandoned before   {'NONE'} nothing is live that it could replace
--          {'FENCED', newest token}
--
-- Rules: one generation is built at a time; a number is never used again, so it only ever rises.

if fenced(ARGV[3]) then
  return {'FENCED', state[7]}
end
if live == generation then
  return {'LIVE'}
end
if live == '0' then
  return {'NONE'}
end
if building == generation then
  return {'OK', digits(next_number)}
end
if tonumber(generation) < tonumber(live) or is_retiring(generation) then -- rule: never again
  return {'PAST', live}
end
if building ~= '' then -- rule: one at a time
  return {'BUSY', building}
end
redis.call('HSET', KEYS[1], 'building', generation)
return {'OK', digits(next_number)}
