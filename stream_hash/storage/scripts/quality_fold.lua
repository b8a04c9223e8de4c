-- Take figures up into the summary.
--
-- KEYS[1]  the index's quality; the others share its hash tag
-- ARGV[1]  the summary was read when it was folded up to here   ARGV[2]  now it is up to here   ARGV[3]  the summary
-- ARGV[4]  when training is asked for (Unix seconds), absent if it is not   ARGV[5]  why
-- Returns  1, or 0 when somebody else has folded meanwhile: then nothing changes
--
-- Rule: a figure is taken up once. What goes, what it became and the wish that follows change at once.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'quality'
if redis.call('EXISTS', prefix .. 'settings') == 0 then -- rule: an index that is there
  return 0
end
if (redis.call('HGET', KEYS[1], 'folded') or '0') ~= ARGV[1] then -- rule: once
  return 0
end
redis.call('ZREMRANGEBYSCORE', prefix .. 'figures', '-inf', '(' .. ARGV[2])
redis.call('HSET', KEYS[1], 'folded', ARGV[2], 'summary', ARGV[3])
if ARGV[4] then
  redis.call('HSET', prefix .. 'trainer', 'asked', ARGV[4], 'asked_why', ARGV[5])
end
return 1
