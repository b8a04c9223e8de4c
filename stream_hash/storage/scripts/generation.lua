-- What the scripts that replace a partition's generation share; put in front of each of them, after partition.lua.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce
-- Returns  {'ANOTHER'} when the index was dropped, or wiped and one of its name created, since the caller opened it

local state = redis.call(
  'HMGET', KEYS[1], 'live', 'building', 'items', 'next', 'tables', 'code_bytes', 'token', 'retiring', 'nonce')
if state[9] and state[9] ~= ARGV[2] then -- rule: the same index
  return {'ANOTHER'}
end
if dropped(ARGV[2]) then -- rule: dropped
  return {'ANOTHER'}
end
local live, building, retiring = state[1] or '0', state[2] or '', state[8] or ''
local items, next_number = state[3] or '0', tonumber(state[4] or '0')
local generation = ARGV[1]
set_layout(state[5], state[6])

-- Whether somebody with a newer token has been here. Who has the newest is remembered; not by a partition without a
-- first generation, which has no nonce yet: the token may be one of an index that was wiped.
local function fenced(token)
  local newest = tonumber(state[7] or '0')
  if tonumber(token) < newest then -- rule: fence
    return true
  end
  if not state[9] then -- rule: of no index yet
    return false
  end
  -- a removal first: a server out of memory refuses a script only at a first write that may grow
  redis.call('HDEL', KEYS[1], '')
  redis.call('HSET', KEYS[1], 'token', token)
  return false
end

local function is_retiring(wanted)
  return string.find(',' .. retiring .. ',', ',' .. wanted .. ',', 1, true) ~= nil
end

local function begin_retiring(gone)
  if not is_retiring(gone) then
    retiring = retiring == '' and gone or retiring .. ',' .. gone
    redis.call('HSET', KEYS[1], 'retiring', retiring)
  end
end

local function built_key()
  return prefix .. 'built:' .. generation
end
