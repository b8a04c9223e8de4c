-- The horizon of an index: every write with a lower sequence number has been applied.
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- Returns  the first sequence number of the oldest pending batch, or the next one to be given out

local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if oldest[2] then
  return string.format('%.0f', tonumber(oldest[2]))
end
local last = redis.call('GET', string.sub(KEYS[1], 1, -8) .. 'sequence')
return string.format('%.0f', tonumber(last or '0') + 1)
