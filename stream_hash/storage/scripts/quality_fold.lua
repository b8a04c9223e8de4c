-- Take figures up into the summary.
--
-- KEYS[1]  the index's quality; the others share its hash tag
-- ARGV[1]  the index's nonce
-- ARGV[2]  the summary was read when it was folded up to here   ARGV[3]  now it is up to here   ARGV[4]  the summary
-- ARGV[5]  when training is asked for (Unix seconds), absent if it is not   ARGV[6]  why
-- Returns  1, or 0 when somebody else has folded meanwhile, or the index was wiped: then nothing changes
--
-- Rule: a figure is taken up once. What goes, what it became and the wish that follows change at once.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'quality'
local settings = redis.call('GET', prefix .. 'settings')
if not settings or cjson.decode(settings).nonce ~= ARGV[1] then -- rule: the same index
  return 0
end
if (redis.call('HGET', KEYS[1], 'folded') or '0') ~= ARGV[2] then -- rule: once
  return 0
end
redis.call('ZREMRANGEBYSCORE', prefix .. 'figures', '-inf', '(' .. ARGV[3])
redis.call('HSET', KEYS[1], 'folded', ARGV[3], 'summary', ARGV[4])
if ARGV[5] then
  redis.call('HSET', prefix .. 'trainer', 'asked', ARGV[5], 'asked_why', ARGV[6])
end
return 1
