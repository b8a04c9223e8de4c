-- Add to the tallies of an index what a process has counted by itself.
--
-- KEYS[1]  the index's settings; the tallies share their hash tag
-- ARGV[1]  nonce of the index it was counted in   ARGV[2]  JSON {name: count}
-- Returns  1, or 0 when that index is gone: then nothing changes

local settings = redis.call('GET', KEYS[1])
if not settings or cjson.decode(settings).nonce ~= ARGV[1] then -- rule: of this index
  return 0
end
local key = string.sub(KEYS[1], 1, -9) .. 'tallies' -- without 'settings'
-- a removal first: a server out of memory refuses a script only at a first write that may grow
redis.call('HDEL', key, '')
for name, count in pairs(cjson.decode(ARGV[2])) do
  redis.call('HINCRBY', key, name, string.format('%.0f', count))
end
return 1
