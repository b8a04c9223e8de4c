-- Become the index's trainer: take the lease if nobody else holds it.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  nonce   ARGV[2]  who wants it   ARGV[3]  now   ARGV[4]  until (both Unix milliseconds)
-- ARGV[5]  a holder that is known to be gone, absent for none
-- Returns  {'OK', token} or {'HELD', holder, until}
--
-- Rule: who takes over from another gets a higher token, and the other's is refused from then on.
-- Rule: a lease is taken from the very holder that is gone, and not from who has come after it.

local held = redis.call('HMGET', KEYS[1], 'holder', 'until')
local holder, until_then = held[1] or '', held[2] or '0'
if holder ~= '' and holder ~= ARGV[2] and tonumber(until_then) > tonumber(ARGV[3]) -- rule: one at a time
    and holder ~= ARGV[5] then -- rule: gone
  return {'HELD', holder, until_then}
end
if holder ~= ARGV[2] then
  newest = tostring(redis.call('HINCRBY', KEYS[1], 'token', 1)) -- rule: a new token
end
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'until', ARGV[4])
return {'OK', newest}
