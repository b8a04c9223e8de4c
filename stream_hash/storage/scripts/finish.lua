-- Finish a batch: applied, but for its dead letters. Repeating it changes nothing.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  batch   ARGV[2]  receipt's life in seconds
-- ARGV[3]  JSON {name: count}: what to add to the tallies
-- ARGV[4+] dead letters: first sequence number, items, letter, ...
-- Returns  1 when this call finished it, 0 when it was not pending
--
-- Rules
--   1. accepted = applied + pending + dead + dropped at every moment, so all of it changes here at once.
--   2. Each dead letter is held from here on: while it is, the floor does not rise above it (floor.lua).

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
local batch = ARGV[1]
local first = redis.call('ZSCORE', KEYS[1], batch)
if not first then -- rule: once
  return 0
end
local items = tonumber(redis.call('HGET', prefix .. 'sizes', batch))
local dead = 0
-- removals first: a server out of memory refuses a script only at a first write that may grow
redis.call('ZREM', KEYS[1], batch)
redis.call('UNLINK', prefix .. 'batch:' .. batch)
for position = 4, #ARGV, 3 do
  redis.call('HSET', prefix .. 'dead', ARGV[position], ARGV[position + 2])
  redis.call('ZADD', prefix .. 'held', ARGV[position], ARGV[position]) -- rule: held
  dead = dead + tonumber(ARGV[position + 1])
end
redis.call('HINCRBY', prefix .. 'counters', 'applied', items - dead)
redis.call('HINCRBY', prefix .. 'counters', 'dead', dead)
redis.call('ZREM', prefix .. 'leases', batch)
redis.call('HDEL', prefix .. 'sizes', batch)
redis.call('HDEL', prefix .. 'arrived', batch)
redis.call('HDEL', prefix .. 'attempts', batch)
redis.call('HDEL', prefix .. 'begun', batch)
redis.call('HDEL', prefix .. 'failures', batch)
for name, count in pairs(cjson.decode(ARGV[3])) do
  redis.call('HINCRBY', prefix .. 'tallies', name, string.format('%.0f', count))
end
redis.call('SET', prefix .. 'receipt:' .. batch, string.format('%.0f', tonumber(first)), 'EX', ARGV[2])
return 1
