-- Let a partition's first generation go live. Repeating it, or coming second, changes nothing.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce   ARGV[3]  tables   ARGV[4]  bytes of a code
-- ARGV[5]  the key of the index's settings; '' on a cluster, where they may be on another node
-- Returns  the generation that is live now, or an error that begins with GONE when the index was dropped, or wiped, be
--          it that one of its name was created since
--
-- Rule: what makes a partition its index's own is this script, so no other can tell whose it is. Were it to come late,
-- the index that has the name by now could never have a first generation: it would have one without a model.

-- KEYS[1] without 'state'; see partition.lua
if redis.call('EXISTS', string.sub(KEYS[1], 1, -6) .. 'dropped:' .. ARGV[2]) == 1 then -- rule: dropped
  return {err = 'GONE the index was dropped'}
end
if ARGV[5] ~= '' then
  local settings = redis.call('GET', ARGV[5])
  -- an index that is being imported goes live before it has settings
  local nonce = settings and cjson.decode(settings).nonce
    or redis.call('HGET', string.sub(ARGV[5], 1, -9) .. 'import', 'nonce')
  if nonce ~= ARGV[2] then -- rule: the same index
    return {err = 'GONE the index was wiped'}
  end
end
if (redis.call('HGET', KEYS[1], 'live') or '0') == '0' then -- rule: once; no upsert comes before this
  redis.call('HSET', KEYS[1], 'live', ARGV[1], 'building', '', 'items', 0, 'nonce', ARGV[2],
    'tables', ARGV[3], 'code_bytes', ARGV[4])
end
return redis.call('HGET', KEYS[1], 'live')
