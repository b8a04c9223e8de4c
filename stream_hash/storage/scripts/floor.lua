-- How far the floors of an index's partitions may rise (purge.lua).
--
-- KEYS[1]  the index's pending batches; the others share its hash tag
-- Returns  a sequence number: every write with a lower one has been applied, or is a dead letter that has lapsed or was
--          dropped, so that it is never written under that number any more
--
-- Rule: a dead letter that is held keeps the floor down, as a pending batch does. So the tombstones of all deletes that
-- came after it are there when it is retried in its place, and its numbers are not refused.

local prefix = string.sub(KEYS[1], 1, -8) -- without 'pending'
local floor = tonumber(redis.call('GET', prefix .. 'sequence') or '0') + 1
for _, key in ipairs({KEYS[1], prefix .. 'held'}) do -- rule: both
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if oldest[2] then
    floor = math.min(floor, tonumber(oldest[2]))
  end
end
return string.format('%.0f', floor)
