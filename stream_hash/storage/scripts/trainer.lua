-- What the scripts of an index's trainer share; put in front of each of them.
--
-- KEYS[1]  the index's trainer; the others share its hash tag
-- ARGV[1]  the index's nonce   ARGV[2]  the caller's token, of all but who asks for one
-- Returns  {'ANOTHER'} when the index was wiped, be it that one of its name was created since the caller opened it

local prefix = string.sub(KEYS[1], 1, -8) -- without 'trainer'
local settings = redis.call('GET', prefix .. 'settings')
if not settings or cjson.decode(settings).nonce ~= ARGV[1] then -- rule: the same index
  return {'ANOTHER'}
end
local newest = redis.call('HGET', KEYS[1], 'token') or '0'

-- Whether a newer trainer has taken over.
local function fenced(token)
  return tonumber(token) < tonumber(newest)
end
