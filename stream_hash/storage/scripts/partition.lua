-- What every script of a partition shares; put in front of each of them.
--
-- KEYS[1] is the partition's state; the other keys are built from its prefix and so share its hash tag.
-- Lua's numbers are doubles: sequence numbers stay below 2^53 and may be compared as numbers; codes and
-- members do not, and are handled as decimal digits only.
--
-- A record is a JSON array:
--   [number, sequence, label, label sequence, metadata, [[generation, member, code, code, ...], ...]]
-- all of them text. An id without an item (deleted, or labelled before it was written) has number ''.

local prefix = string.sub(KEYS[1], 1, -6) -- without 'state'
local NUMBER, SEQUENCE, LABEL, LABEL_SEQUENCE, METADATA, MEMBERS = 1, 2, 3, 4, 5, 6
local CAPACITY = 16777216 -- 2^24 item numbers

local function digits(number)
  return string.format('%.0f', number)
end

-- The member of an item: its signature shifted left by 24 bits, plus its number. The shifted signature
-- comes as high * 10^9 + low, since the whole would not fit a double.
local function member_of(high, low, number)
  low = low + number
  if low >= 1000000000 then
    low = low - 1000000000
    high = high + 1
  end
  if high == 0 then
    return digits(low)
  end
  return string.format('%.0f%09d', high, low)
end

local function add_member(generation, member, codes)
  for table_number, code in ipairs(codes) do
    local place = generation .. ':' .. (table_number - 1)
    if redis.call('SADD', prefix .. 'bucket:' .. place .. ':' .. code, member) == 1 then
      redis.call('HINCRBY', prefix .. 'directory:' .. place, code, 1)
    end
  end
end

local function remove_members(record)
  for _, stored in ipairs(record[MEMBERS]) do
    for position = 3, #stored do
      local place = stored[1] .. ':' .. (position - 3)
      if redis.call('SREM', prefix .. 'bucket:' .. place .. ':' .. stored[position], stored[2]) == 1 then
        local directory = prefix .. 'directory:' .. place
        if redis.call('HINCRBY', directory, stored[position], -1) <= 0 then
          redis.call('HDEL', directory, stored[position])
        end
      end
    end
  end
end
