-- Give an import up: from this reply on it cannot go on, and its keys may be deleted.
--
-- KEYS[1]  the index's settings; the others share its hash tag
-- Returns  the settings of the index that was to be, or nothing when no import is under way

local key = string.sub(KEYS[1], 1, -9) .. 'import' -- without 'settings'
local settings = redis.call('HGET', key, 'settings')
if settings then
  redis.call('HSET', key, 'nonce', '')
end
return settings
