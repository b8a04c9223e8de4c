-- Take the pending batches whose lease has run out, and lease them anew to the caller.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  now   ARGV[2]  lease until (both Unix milliseconds)   ARGV[3]  how many at the most
-- Returns  the batches

local leases = string.sub(KEYS[1], 1, -8) .. 'leases' -- in place of 'pending'
local batches = redis.call('ZRANGEBYSCORE', leases, '-inf', ARGV[1], 'LIMIT', 0, tonumber(ARGV[3]))
-- a removal first: a server out of memory refuses a script only at a first write that may grow
redis.call('ZREM', leases, '')
for _, batch in ipairs(batches) do
  redis.call('ZADD', leases, ARGV[2], batch)
end
return batches
