-- Create an index, or show what stands there already.
--
-- KEYS[1]  the index's settings
-- ARGV[1]  JSON of the settings, with a nonce that tells this index from one of its name wiped before it
-- Returns  the text that stands now, or nothing while an index is being imported under this name, or an error that begins
--          with DROPPING when one of the name is still being dropped
--
-- Rule: none is created among the keys of another that are going.

local prefix = string.sub(KEYS[1], 1, -9) -- without 'settings'
if redis.call('EXISTS', prefix .. 'import') == 1 then
  return false
end
if redis.call('EXISTS', prefix .. 'dropping') == 1 then -- rule: not among what goes
  return {err = 'DROPPING the index is being dropped'}
end
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
