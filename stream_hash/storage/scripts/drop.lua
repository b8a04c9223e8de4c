-- Begin to drop an index, or go on with it: from this reply on nobody can open it, and nothing is accepted.
--
-- KEYS[1]  the index's settings   KEYS[2]  where they stand while it is being dropped
-- ARGV[1]  the nonce of the index that is meant
-- Returns  the settings of the index that is being dropped, or nothing when there is none, or another one
--
-- Rule: what is gone on with is what was begun, whoever goes on.

local standing = redis.call('GET', KEYS[2])
if standing then
  return standing
end
local settings = redis.call('GET', KEYS[1])
if not settings or cjson.decode(settings).nonce ~= ARGV[1] then -- rule: the one that is meant
  return false
end
redis.call('RENAME', KEYS[1], KEYS[2])
return settings
