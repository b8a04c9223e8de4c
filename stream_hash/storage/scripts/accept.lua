-- Accept a batch: from this reply on it is durable, numbered and will be delivered.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  batch   ARGV[2]  items   ARGV[3]  payload   ARGV[4]  lease until (Unix milliseconds)
-- ARGV[5]  bound on pending batches, 0 for none
-- ARGV[6]  '1' for deletes: they are taken even when memory is out, since they give some back
-- ARGV[7]  now (Unix milliseconds)
-- Returns  {'ACCEPTED' | 'KNOWN', first sequence number} or {'FULL', pending batches}
--
-- Rules
--   1. A batch id is accepted once. A lost reply makes the client ask again, and so may a producer.
--   2. Nothing is accepted for an index that was dropped: nobody would ever apply it.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
if redis.call('EXISTS', prefix .. 'settings') == 0 then -- rule: an index that is there
  return {err = 'GONE there is no such index (any more)'}
end
local batch, items = ARGV[1], tonumber(ARGV[2])
local first = redis.call('ZSCORE', KEYS[1], batch) or redis.call('GET', prefix .. 'receipt:' .. batch)
if first then -- rule: once
  return {'KNOWN', string.format('%.0f', tonumber(first))}
end
local bound = tonumber(ARGV[5])
local pending = redis.call('ZCARD', KEYS[1])
if bound > 0 and pending >= bound then
  return {'FULL', pending}
end
if ARGV[6] == '1' then
  -- a server out of memory refuses a script only at a first write that may grow
  redis.call('ZREM', prefix .. 'leases', batch)
end
first = redis.call('INCRBY', prefix .. 'sequence', items) - items + 1
redis.call('SET', prefix .. 'batch:' .. batch, ARGV[3])
redis.call('ZADD', KEYS[1], first, batch)
redis.call('ZADD', prefix .. 'leases', ARGV[4], batch)
redis.call('HSET', prefix .. 'sizes', batch, items)
redis.call('HSET', prefix .. 'arrived', batch, ARGV[7])
redis.call('HINCRBY', prefix .. 'counters', 'accepted', items)
redis.call('HINCRBY', prefix .. 'tallies', 'batches', 1)
return {'ACCEPTED', string.format('%.0f', first)}
