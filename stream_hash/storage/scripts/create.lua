-- Create an index, or show what stands there already.
--
-- KEYS[1]  the index's settings
-- ARGV[1]  JSON of the settings
-- Returns  the settings that stand now

redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
