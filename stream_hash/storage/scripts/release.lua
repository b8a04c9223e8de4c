-- Give a batch back after a failed attempt: it is due at once.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  batch   ARGV[2]  now (Unix milliseconds)   ARGV[3]  why it failed
-- ARGV[4]  '1' when the server was at fault, not the batch: the attempt does not count
-- ARGV[5]  the kind of failure, for the tallies
-- Returns  1 when the batch was pending
--
-- Rule: repeating it changes nothing. Its lease then ends where this very call has put its end; whoever begins the
-- batch moves it on.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
if tonumber(redis.call('ZSCORE', prefix .. 'leases', ARGV[1]) or '') == tonumber(ARGV[2])
    and redis.call('HGET', prefix .. 'failures', ARGV[1]) == ARGV[3] then -- rule: once
  return 1
end
-- a removal first: a server out of memory refuses a script only at a first write that may grow
redis.call('ZREM', prefix .. 'leases', ARGV[1])
redis.call('ZADD', prefix .. 'leases', ARGV[2], ARGV[1])
redis.call('HSET', prefix .. 'failures', ARGV[1], ARGV[3])
redis.call('HINCRBY', prefix .. 'tallies', 'failed:' .. ARGV[5], 1)
if ARGV[4] == '1' then
  redis.call('HINCRBY', prefix .. 'attempts', ARGV[1], -1)
end
return 1
