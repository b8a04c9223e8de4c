-- The clock that an index's leases go by: that of the server on which they stand, be it one of a cluster.
--
-- KEYS[1]  the index's pending batches
-- Returns  {Unix seconds, microseconds}. It changes nothing.

return redis.call('TIME')
