-- Keep what items of a batch found, each asked before the batch was written.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- ARGV[1]  batch   ARGV[2]  how many figures to keep
-- ARGV[3+] position, figure, ...
-- Returns  how many were new
--
-- Rule: only the first attempt at a batch adds, and only until there is a second. None of it has been written by others
-- then, and it is pending: nothing comes below the horizon. (An attempt that the server failed is counted down again;
-- that it failed is remembered.)
-- Rule: an item counts once.
-- Rule: the newest are kept, so that they stay bounded though nobody folds them.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
if redis.call('HGET', prefix .. 'attempts', ARGV[1]) ~= '1' -- rule: first attempt
  or redis.call('HEXISTS', prefix .. 'failures', ARGV[1]) == 1 then -- rule: never failed
  return 0
end
local figures, new = prefix .. 'figures', 0
for position = 3, #ARGV, 2 do
  if redis.call('ZCOUNT', figures, ARGV[position], ARGV[position]) == 0 then -- rule: once
    redis.call('ZADD', figures, ARGV[position], ARGV[position + 1])
    new = new + 1
  end
end
redis.call('ZREMRANGEBYRANK', figures, 0, -tonumber(ARGV[2]) - 1) -- rule: bounded
return new
