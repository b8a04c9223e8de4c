-- Raise a partition's floor and forget tombstones below it.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the floor: every write with a lower sequence number has been applied, or never will be
-- ARGV[2]  how many tombstones to forget at the most   ARGV[3]  the index's nonce
-- Returns  how many were forgotten
--
-- Rules
--   1. The floor rises in the same script in which tombstones go. A worker that was paused with an older write in its
--      hands then finds the floor where it would have found the tombstone.
--   2. Nothing is written for an index that was dropped.

if dropped(ARGV[3]) then -- rule: dropped
  return {err = 'GONE the index was dropped'}
end
local horizon = tonumber(ARGV[1])
local floor = tonumber(redis.call('HGET', KEYS[1], 'floor') or '0')
local rises = horizon > floor
if rises then
  floor = horizon
end
local ids = redis.call(
  'ZRANGEBYSCORE', prefix .. 'tombstones', '-inf', '(' .. digits(floor), 'LIMIT', 0, tonumber(ARGV[2]))
for _, id in ipairs(ids) do
  redis.call('HDEL', prefix .. 'records', id)
  redis.call('ZREM', prefix .. 'tombstones', id)
end
if rises then
  -- a removal first: a server out of memory refuses a script only at a first write that may grow
  redis.call('ZREM', prefix .. 'tombstones', '')
  redis.call('HSET', KEYS[1], 'floor', ARGV[1])
end
return #ids
