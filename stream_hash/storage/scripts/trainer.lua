-- What the scripts of an index's trainer share; put in front of each of them.
--
-- KEYS[1]  the index's trainer; the others share its hash tag

local prefix = string.sub(KEYS[1], 1, -8) -- without 'trainer'
if redis.call('EXISTS', prefix .. 'settings') == 0 then -- rule: an index that is there
  return {err = 'GONE there is no such index (any more)'}
end
local newest = redis.call('HGET', KEYS[1], 'token') or '0'

-- Whether a newer trainer has taken over.
local function fenced(token)
  return tonumber(token) < tonumber(newest)
end
