-- Let an imported index be seen: from this reply on it stands, complete.
--
-- KEYS[1]  the index's settings; the others share its hash tag
-- ARGV[1]  nonce   ARGV[2]  settings with it, and with the digest of the archive   ARGV[3]  last sequence number
-- ARGV[4]  items   ARGV[5]  the trainer's target, '' for none   ARGV[6]  the saved plan, '' for none
-- ARGV[7+] records of runs of training, newest first
-- Returns  1, or 0 when that import is not under way any more
--
-- Rule: settings come last and at once with all else: who finds them finds an index with every item.

local prefix = string.sub(KEYS[1], 1, -9) -- without 'settings'
local standing = redis.call('GET', KEYS[1])
if standing then -- rule: once; the reply may have been lost
  return cjson.decode(standing).nonce == ARGV[1] and 1 or 0
end
if redis.call('HGET', prefix .. 'import', 'nonce') ~= ARGV[1] then
  return 0
end
if tonumber(redis.call('GET', prefix .. 'sequence') or '0') < tonumber(ARGV[3]) then
  redis.call('SET', prefix .. 'sequence', ARGV[3])
end
redis.call('HINCRBY', prefix .. 'counters', 'accepted', ARGV[4])
redis.call('HINCRBY', prefix .. 'counters', 'applied', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('HSET', prefix .. 'trainer', 'target', ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('SET', prefix .. 'plan', ARGV[6])
end
for position = 7, #ARGV do
  redis.call('RPUSH', prefix .. 'runs', ARGV[position])
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('UNLINK', prefix .. 'import')
return 1
