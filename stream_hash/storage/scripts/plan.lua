-- Keep a search as the index's own, or have it forgotten.
--
-- KEYS[1]  the index's settings; the plan shares their hash tag
-- ARGV[1]  nonce of the index it was chosen for   ARGV[2]  the plan, empty for none
-- Returns  1, or 0 when that index is gone: then nothing changes

local settings = redis.call('GET', KEYS[1])
if not settings or cjson.decode(settings).nonce ~= ARGV[1] then -- rule: of this index
  return 0
end
local key = string.sub(KEYS[1], 1, -9) .. 'plan' -- without 'settings'
if ARGV[2] == '' then
  redis.call('DEL', key)
else
  redis.call('SET', key, ARGV[2])
end
return 1
