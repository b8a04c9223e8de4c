-- Begin to apply a batch: take a lease on it and count the attempt.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  batch   ARGV[2]  lease until (Unix milliseconds)   ARGV[3]  the attempt: a name that no other has
--
-- Rules
--   1. A batch that is pending in an index that is being dropped is begun no more.
--   2. An attempt counts once. Its reply may be lost, and then it is sent again.
--
-- Returns  {payload, first sequence number, attempts with this one, items, last failure, settings of the
--          index}, or nothing when it is not pending

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
local first = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not first then
  return false
end
if redis.call('EXISTS', prefix .. 'settings') == 0 then -- rule: an index that is there
  return {err = 'GONE there is no such index (any more)'}
end
local again = redis.call('HGET', prefix .. 'begun', ARGV[1]) == ARGV[3]
-- a removal first: a server out of memory refuses a script only at a first write that may grow
redis.call('ZREM', prefix .. 'leases', ARGV[1])
redis.call('ZADD', prefix .. 'leases', ARGV[2], ARGV[1])
if not again then -- rule: once
  redis.call('HSET', prefix .. 'begun', ARGV[1], ARGV[3])
  local attempts = redis.call('HINCRBY', prefix .. 'attempts', ARGV[1], 1)
  redis.call('HINCRBY', prefix .. 'tallies', 'deliveries', 1)
  if attempts > 1 or redis.call('HEXISTS', prefix .. 'failures', ARGV[1]) == 1 then
    redis.call('HINCRBY', prefix .. 'tallies', 'retries', 1) -- also after one that the server failed
  end
end
return {
  redis.call('GET', prefix .. 'batch:' .. ARGV[1]) or '',
  string.format('%.0f', tonumber(first)),
  tonumber(redis.call('HGET', prefix .. 'attempts', ARGV[1])),
  tonumber(redis.call('HGET', prefix .. 'sizes', ARGV[1])),
  redis.call('HGET', prefix .. 'failures', ARGV[1]) or '',
  redis.call('GET', prefix .. 'settings')
}
