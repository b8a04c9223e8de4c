-- Let a partition's first generation go live. Repeating it, or coming second, changes nothing.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce   ARGV[3]  tables   ARGV[4]  bytes of a code
-- Returns  the generation that is live now, or an error that begins with GONE when the index was dropped

-- KEYS[1] without 'state'; see partition.lua
if redis.call('EXISTS', string.sub(KEYS[1], 1, -6) .. 'dropped:' .. ARGV[2]) == 1 then -- rule: dropped
  return {err = 'GONE the index was dropped'}
end
if (redis.call('HGET', KEYS[1], 'live') or '0') == '0' then -- rule: once; no upsert comes before this
  redis.call('HSET', KEYS[1], 'live', ARGV[1], 'building', '', 'items', 0, 'nonce', ARGV[2],
    'tables', ARGV[3], 'code_bytes', ARGV[4])
end
return redis.call('HGET', KEYS[1], 'live')
