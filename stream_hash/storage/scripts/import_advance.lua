-- Remember how far an import has come.
--
-- KEYS[1]  the index's settings; the others share its hash tag
-- ARGV[1]  nonce   ARGV[2]  blocks that are done   ARGV[3]  items of these
-- Returns  1, or 0 when that import is not under way any more
--
-- Rule: forward only; of two that import the same archive the slower one changes nothing.

local key = string.sub(KEYS[1], 1, -9) .. 'import' -- without 'settings'
local import = redis.call('HMGET', key, 'nonce', 'done')
if import[1] ~= ARGV[1] then
  return 0
end
if tonumber(import[2]) < tonumber(ARGV[2]) then -- rule: forward
  redis.call('HSET', key, 'done', ARGV[2], 'items', ARGV[3])
end
return 1
