-- Make a dead letter pending again.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  the letter: its first sequence number
-- ARGV[2]  a batch id that was never used   ARGV[3]  lease until   ARGV[4]  now (both Unix milliseconds)
-- ARGV[5]  '1' to accept its payload anew, as the newest write of its ids
-- Returns  {'PENDING' | 'KNOWN', first sequence number of the batch}, {'NONE'} there is no such letter, or {'LAPSED'}
--          its place in the order of writes is gone: it can be accepted anew, or dropped
--
-- Rules
--   1. A letter is retried once: what was a letter is a batch, at once, and of the two there is always one.
--   2. It keeps its sequence numbers, so that whatever was written later stays. That is sound while it is held: no
--      partition's floor is above it, and no tombstone of a later delete was forgotten.
--   3. Accepted anew, it counts as dropped, and its payload as accepted, under new numbers.
--   4. It counts as failed before, so that no figures of live quality are added where they have been taken up already.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
local letter, batch = ARGV[1], ARGV[2]
if redis.call('EXISTS', prefix .. 'settings') == 0 then -- rule: an index that is there
  return {err = 'GONE there is no such index (any more)'}
end
local known = redis.call('ZSCORE', KEYS[1], batch) or redis.call('GET', prefix .. 'receipt:' .. batch)
if known then -- rule: once
  return {'KNOWN', string.format('%.0f', tonumber(known))}
end
local text = redis.call('HGET', prefix .. 'dead', letter)
if not text then
  return {'NONE'}
end
local first = redis.call('ZSCORE', prefix .. 'held', letter)
if not first and ARGV[5] ~= '1' then -- rule: held
  return {'LAPSED'}
end
local length = string.find(text, '\n', 1, true)
local header = cjson.decode(string.sub(text, 1, length - 1))
-- removals first: a server out of memory refuses a script only at a first write that may grow
redis.call('HDEL', prefix .. 'dead', letter) -- rule: one of the two
redis.call('ZREM', prefix .. 'held', letter)
redis.call('HINCRBY', prefix .. 'counters', 'dead', -header.items)
if ARGV[5] == '1' then
  redis.call('HINCRBY', prefix .. 'counters', 'dropped', header.items) -- rule: anew
  redis.call('HINCRBY', prefix .. 'counters', 'accepted', header.items)
  first = redis.call('INCRBY', prefix .. 'sequence', header.items) - header.items + 1
else
  redis.call('HSET', prefix .. 'failures', batch, header.reason) -- rule: no figures
end
redis.call('SET', prefix .. 'batch:' .. batch, string.sub(text, length + 1))
redis.call('ZADD', KEYS[1], first, batch)
redis.call('ZADD', prefix .. 'leases', ARGV[3], batch)
redis.call('HSET', prefix .. 'sizes', batch, header.items)
redis.call('HSET', prefix .. 'arrived', batch, ARGV[4])
return {'PENDING', string.format('%.0f', tonumber(first))}
