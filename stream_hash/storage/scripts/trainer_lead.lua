-- Become the index's trainer: take the lease if nobody else holds it.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  who wants it   ARGV[2]  now   ARGV[3]  until (both Unix milliseconds)
-- Returns  {'OK', token} or {'HELD', holder, until}
--
-- Rule: who takes over from another gets a higher token, and the other's is refused from then on.

local held = redis.call('HMGET', KEYS[1], 'holder', 'until')
local holder, until_then = held[1] or '', held[2] or '0'
if holder ~= '' and holder ~= ARGV[1] and tonumber(until_then) > tonumber(ARGV[2]) then -- rule: one at a time
  return {'HELD', holder, until_then}
end
if holder ~= ARGV[1] then
  newest = tostring(redis.call('HINCRBY', KEYS[1], 'token', 1)) -- rule: a new token
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', ARGV[3])
return {'OK', newest}
