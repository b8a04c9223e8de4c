-- Drop a dead letter: its items are given up for good.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  the letter: its first sequence number
-- Returns  how many items it held, 0 when there is no such letter
--
-- Rule: what is dropped is counted, so that accepted = applied + pending + dead + dropped.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
local text = redis.call('HGET', prefix .. 'dead', ARGV[1])
if not text then -- rule: once
  return 0
end
local items = cjson.decode(string.sub(text, 1, string.find(text, '\n', 1, true) - 1)).items
redis.call('HDEL', prefix .. 'dead', ARGV[1])
redis.call('ZREM', prefix .. 'held', ARGV[1]) -- rule: held no more
redis.call('HINCRBY', prefix .. 'counters', 'dead', -items)
redis.call('HINCRBY', prefix .. 'counters', 'dropped', items) -- rule: counted
return items
