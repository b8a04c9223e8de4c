-- Write items of one partition: upserts, deletes and labels, in order.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  JSON {"live": text, "building": text, "writes": [write, ...]}; a write is one of
--            ["upsert", id, sequence, label, metadata, [[high, low, code, ...] a writable generation]]
--            ["delete", id, sequence]
--            ["label", id, sequence, label]
-- ARGV[2+] the value of each upsert, in the order of the upserts
--
-- Returns  {'OK', outcome, ...}: 1 written, 0 ignored for a newer write, 2 a delete or label of an id that
--          has no item now, remembered for one that may still arrive
--          {'STALE', live, building}: the caller hashed for other generations; nothing was written
--          {'FULL', items}: more new items than free item numbers; nothing was written
--
-- Rules
--   1. Fence: the codes are for exactly the generations that are writable now, or nothing is written.
--   2. Order: a write whose sequence number is not above the stored one is ignored; so is one below the
--      partition's floor, because everything below the floor has been applied already.
--   3. A delete leaves a tombstone with its number, so that an older upsert arriving later is ignored.
--   4. An upsert or delete removes the old members by the stored codes, never by recomputed ones.

local request = cjson.decode(ARGV[1])
local state = redis.call('HMGET', KEYS[1], 'live', 'building', 'floor', 'next', 'items')
local live, building = state[1] or '0', state[2] or ''
if live ~= request.live or building ~= request.building then -- rule: fence
  return {'STALE', live, building}
end
local floor = tonumber(state[3] or '0')

local function is_new(write)
  if write[1] ~= 'upsert' then
    return false
  end
  local record = load_record(write[2])
  return not record or record[NUMBER] == ''
end

local room = CAPACITY - tonumber(state[4] or '0')
if room < #request.writes then -- near the end of the item numbers: now it is worth counting
  local needed = 0
  for _, write in ipairs(request.writes) do
    if is_new(write) then
      needed = needed + 1
    end
  end
  if room + redis.call('LLEN', prefix .. 'free') < needed then
    return {'FULL', state[5] or '0'}
  end
end

local writable = {live}
if building ~= '' then
  writable[2] = building
end

local function set_label(record, label, sequence)
  record[LABEL], record[LABEL_SEQUENCE] = label, sequence
  if record[NUMBER] == '' then
    return
  end
  if label == '' then
    redis.call('ZREM', prefix .. 'labelled', record[NUMBER])
  else
    redis.call('ZADD', prefix .. 'labelled', sequence, record[NUMBER])
  end
end

local function upsert(id, sequence, label, metadata, generations, value)
  local record = load_record(id) or {'', '0', '', '0', '', {}}
  if sequence <= tonumber(record[SEQUENCE]) or sequence < floor then -- rule: order
    return 0
  end
  if record[NUMBER] == '' then
    local number = redis.call('LPOP', prefix .. 'free')
    if not number then
      number = digits(redis.call('HINCRBY', KEYS[1], 'next', 1) - 1)
    end
    record[NUMBER] = number
    redis.call('HINCRBY', KEYS[1], 'items', 1)
    redis.call('ZREM', prefix .. 'tombstones', id)
  else
    remove_members(record) -- rule: stored codes
  end
  record[MEMBERS] = {}
  for position, hashed in ipairs(generations) do
    local member = member_of(hashed[1], hashed[2], tonumber(record[NUMBER]))
    local codes = {}
    local stored = {writable[position], member}
    for index = 3, #hashed do
      codes[index - 2] = hashed[index]
      stored[index] = hashed[index]
    end
    add_member(writable[position], member, codes)
    record[MEMBERS][position] = stored
  end
  redis.call('SET', prefix .. 'value:' .. record[NUMBER], value)
  record[SEQUENCE] = digits(sequence)
  record[METADATA] = metadata
  if tonumber(record[LABEL_SEQUENCE]) < sequence then
    set_label(record, label, digits(sequence))
  else
    set_label(record, record[LABEL], record[LABEL_SEQUENCE]) -- a label that overtook its item
  end
  save_record(id, record)
  return 1
end

local function delete(id, sequence)
  local record = load_record(id) or {'', '0', '', '0', '', {}}
  if sequence <= tonumber(record[SEQUENCE]) or sequence < floor then -- rule: order
    return 0
  end
  local outcome = record[NUMBER] == '' and 2 or 1
  if record[NUMBER] ~= '' then
    remove_members(record) -- rule: stored codes
    redis.call('UNLINK', prefix .. 'value:' .. record[NUMBER])
    redis.call('ZREM', prefix .. 'labelled', record[NUMBER])
    redis.call('RPUSH', prefix .. 'free', record[NUMBER])
    redis.call('HINCRBY', KEYS[1], 'items', -1)
  end
  record[NUMBER], record[SEQUENCE], record[METADATA], record[MEMBERS] = '', digits(sequence), '', {}
  if tonumber(record[LABEL_SEQUENCE]) < sequence then
    record[LABEL], record[LABEL_SEQUENCE] = '', '0'
  end
  save_record(id, record) -- rule: tombstone
  local newest = math.max(sequence, tonumber(record[LABEL_SEQUENCE]))
  redis.call('ZADD', prefix .. 'tombstones', digits(newest), id)
  return outcome
end

local function set_label_of(id, sequence, label)
  local record = load_record(id) or {'', '0', '', '0', '', {}}
  if sequence <= tonumber(record[LABEL_SEQUENCE]) or sequence <= tonumber(record[SEQUENCE])
      or sequence < floor then -- rule: order
    return 0
  end
  set_label(record, label, digits(sequence))
  save_record(id, record)
  if record[NUMBER] ~= '' then
    return 1
  end
  redis.call('ZADD', prefix .. 'tombstones', digits(sequence), id)
  return 2
end

local reply = {'OK'}
local next_value = 2
for position, write in ipairs(request.writes) do
  if write[1] == 'upsert' then
    reply[position + 1] = upsert(write[2], write[3], write[4], write[5], write[6], ARGV[next_value])
    next_value = next_value + 1
  elseif write[1] == 'delete' then
    reply[position + 1] = delete(write[2], write[3])
  else
    reply[position + 1] = set_label_of(write[2], write[3], write[4])
  end
end
return reply
