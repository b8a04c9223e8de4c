-- Write items of one partition: upserts, deletes and labels, in order.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  JSON {"nonce": the index's, "live": text, "building": text, "writes": [write, ...]}; a write is one of
--            ["upsert", id, sequence, label, metadata]
--            ["delete", id, sequence]
--            ["label", id, sequence, label]
-- ARGV[2]  the places of each upsert, in the order of the upserts: one for each writable generation, live first
-- ARGV[3+] the value of each upsert, in the same order
--
-- Returns  {'OK', outcome, ...}: 1 written, 0 ignored for a newer write, 2 a delete or label of an id that
--          has no item now, remembered for one that may still arrive
--          {'STALE', live, building}: the caller hashed for other generations; nothing was written
--          {'FULL', items}: more new items than free item numbers; nothing was written
--          an error that begins with GONE: the index was dropped; nothing was written
--
-- Rules
--   1. Fence: the codes are for exactly the generations that are writable now, or nothing is written.
--   2. Order: a write whose sequence number is not above the stored one is ignored; so is one below the
--      partition's floor, because everything below the floor has been applied already.
--   3. A delete leaves a tombstone with its number, so that an older upsert arriving later is ignored.
--   4. An upsert or delete removes the old members by the stored places, never by recomputed ones, from each
--      writable generation.
--   5. Nothing is written for an index that was dropped.
--
-- Calls into the server are what the time goes into. What is read of records and state is therefore read before
-- the first write, for all of them at once; what the writes leave there, and in values, places and labelled, is
-- collected and stored after the last. `unpack` bounds a call to 3,000 writes; storage/store.py sends far fewer.

local request = cjson.decode(ARGV[1])
if dropped(request.nonce) then -- rule: dropped
  return {err = 'GONE the index was dropped'}
end
local state = redis.call('HMGET', KEYS[1], 'live', 'building', 'floor', 'next', 'items', 'tables', 'code_bytes')
local live, building = state[1] or '0', state[2] or ''
if live ~= request.live or building ~= request.building then -- rule: fence
  return {'STALE', live, building}
end
set_layout(state[6], state[7])
local floor = tonumber(state[3] or '0')
local next_number, items = tonumber(state[4] or '0'), tonumber(state[5] or '0')
local free = redis.call('LLEN', prefix .. 'free')

local records = {} -- id -> record, false where there is none
local changed = {} -- id -> record as text, to be stored
local values = {} -- item number -> value to be stored
local labelled = {} -- item number -> sequence number of its label, to be stored

local ids = {}
for position, write in ipairs(request.writes) do
  ids[position] = write[2]
end
if ids[1] then
  for position, text in ipairs(redis.call('HMGET', prefix .. 'records', unpack(ids))) do
    records[ids[position]] = text and cjson.decode(text)
  end
end

local function record_of(id)
  return records[id] or {'', '0', '', '0', ''}
end

local function save_record(id, record)
  records[id], changed[id] = record, cjson.encode(record)
end

-- A table's keys and values as one list: key, value, key, value, ...
local function flattened(entries, key_prefix)
  local list = {}
  for key, value in pairs(entries) do
    list[#list + 1] = key_prefix .. key
    list[#list + 1] = value
  end
  return list
end

local room = CAPACITY - next_number
if room < #request.writes then -- near the end of the item numbers: now it is worth counting
  local needed = 0
  for _, write in ipairs(request.writes) do
    if write[1] == 'upsert' and record_of(write[2])[NUMBER] == '' then
      needed = needed + 1
    end
  end
  if room + free < needed then
    return {'FULL', digits(items)}
  end
end

local writable = {live}
if building ~= '' then
  writable[2] = building
end
if #ARGV[2] ~= (#ARGV - 2) * #writable * width or (#ARGV > 2 and live == '0') then
  return {err = 'the places are not as many, or as long, as the upserts and the generations ask for'}
end

local function take_number()
  items = items + 1
  if free > 0 then
    free = free - 1
    return redis.call('LPOP', prefix .. 'free')
  end
  next_number = next_number + 1
  return digits(next_number - 1)
end

local function set_label(record, label, sequence)
  local before = record[LABEL]
  record[LABEL], record[LABEL_SEQUENCE] = label, sequence
  if record[NUMBER] == '' then
    return
  end
  if label ~= '' then
    labelled[record[NUMBER]] = sequence
  elseif before ~= '' then
    labelled[record[NUMBER]] = nil
    redis.call('ZREM', prefix .. 'labelled', record[NUMBER])
  end
end

-- `upserts` counts those before this one.
local function upsert(id, sequence, label, metadata, upserts)
  local record = record_of(id)
  if sequence <= tonumber(record[SEQUENCE]) or sequence < floor then -- rule: order
    return 0
  end
  local store = move
  if record[NUMBER] == '' then
    record[NUMBER] = take_number()
    store = occupy
    if records[id] then
      redis.call('ZREM', prefix .. 'tombstones', id)
    end
  end
  for position, generation in ipairs(writable) do
    local start = (upserts * #writable + position - 1) * width
    store(generation, tonumber(record[NUMBER]), string.sub(ARGV[2], start + 1, start + width))
  end
  values[record[NUMBER]] = ARGV[3 + upserts]
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
  local record = record_of(id)
  if sequence <= tonumber(record[SEQUENCE]) or sequence < floor then -- rule: order
    return 0
  end
  local outcome = record[NUMBER] == '' and 2 or 1
  if record[NUMBER] ~= '' then
    for _, generation in ipairs(writable) do
      move(generation, tonumber(record[NUMBER]), false)
    end
    values[record[NUMBER]], labelled[record[NUMBER]] = nil, nil
    redis.call('UNLINK', prefix .. 'value:' .. record[NUMBER])
    redis.call('ZREM', prefix .. 'labelled', record[NUMBER])
    redis.call('RPUSH', prefix .. 'free', record[NUMBER])
    free = free + 1
    items = items - 1
  end
  record[NUMBER], record[SEQUENCE], record[METADATA] = '', digits(sequence), ''
  if tonumber(record[LABEL_SEQUENCE]) < sequence then
    record[LABEL], record[LABEL_SEQUENCE] = '', '0'
  end
  save_record(id, record) -- rule: tombstone
  local newest = math.max(sequence, tonumber(record[LABEL_SEQUENCE]))
  redis.call('ZADD', prefix .. 'tombstones', digits(newest), id)
  return outcome
end

local function set_label_of(id, sequence, label)
  local record = record_of(id)
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

-- A removal first: a server out of memory refuses a script only at a first write that may grow. What was accepted
-- is applied all the same, since that is what frees its payload.
redis.call('HDEL', KEYS[1], '')

local reply = {'OK'}
local upserts = 0
for position, write in ipairs(request.writes) do
  if write[1] == 'upsert' then
    reply[position + 1] = upsert(write[2], write[3], write[4], write[5], upserts)
    upserts = upserts + 1
  elseif write[1] == 'delete' then
    reply[position + 1] = delete(write[2], write[3])
  else
    reply[position + 1] = set_label_of(write[2], write[3], write[4])
  end
end

if next(changed) then
  redis.call('HSET', prefix .. 'records', unpack(flattened(changed, '')))
  redis.call('HSET', KEYS[1], 'next', digits(next_number), 'items', digits(items))
end
store_places()
if next(values) then
  redis.call('MSET', unpack(flattened(values, prefix .. 'value:')))
end
local scores = {}
for number, sequence in pairs(labelled) do
  scores[#scores + 1] = sequence
  scores[#scores + 1] = number
end
if scores[1] then
  redis.call('ZADD', prefix .. 'labelled', unpack(scores))
end
return reply
