-- Create an index, or show what stands there already.
--
-- KEYS[1]  the index's settings
-- ARGV[1]  JSON of the settings, with a nonce that tells this index from one of its name wiped before it
-- Returns  the text that stands now, or nothing while an index is being imported under this name

if redis.call('EXISTS', string.sub(KEYS[1], 1, -9) .. 'import') == 1 then -- without 'settings'
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
