-- Read the ids and records of items by their numbers: in one call, so that each pair belongs together.
--
-- KEYS[1]  the partition's records
-- ARGV[1]  what the keys of its values begin with
-- ARGV[2]  where in a value the id begins
-- ARGV[3+] item numbers
--
-- Returns  {ids, records}, '' and nil for a number that has no item. It changes nothing.

local ids = {}
for position = 3, #ARGV do
  ids[position - 2] = redis.call('GETRANGE', ARGV[1] .. ARGV[position], ARGV[2], -1)
end
return {ids, redis.call('HMGET', KEYS[1], unpack(ids))}
