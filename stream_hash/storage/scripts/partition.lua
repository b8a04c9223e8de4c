-- What every script of a partition shares; put in front of each of them.
--
-- When an index is dropped, each partition keeps its nonce for a day in a key of its own: whoever was paused with that
-- index in hand writes nothing, neither into the void nor into another index of the name.
--
-- KEYS[1] is the partition's state; the other keys are built from its prefix and so share its hash tag.
-- Lua's numbers are doubles: sequence numbers stay below 2^53 and may be compared as numbers; codes and
-- members do not. They come as the bytes of a place and become decimal digits without ever being one number.
--
-- A record is a JSON array: [number, sequence, label, label sequence, metadata], all of them text. An id without
-- an item (deleted, or labelled before it was written) has number ''.
--
-- A place is what a generation stores of an item: 5 bytes of signature, the first bit of which says that the
-- place is occupied, then the code of each table; all big-endian. The places of 512 item numbers are one string.

local prefix = string.sub(KEYS[1], 1, -6) -- without 'state'
local NUMBER, SEQUENCE, LABEL, LABEL_SEQUENCE, METADATA = 1, 2, 3, 4, 5
local CAPACITY = 16777216 -- 2^24 item numbers
local SIGNATURE_BYTES, BLOCK = 5, 512
local OPENED = 1024 -- codes that a list of opened buckets holds in any case before it is begun anew

local byte, format = string.byte, string.format -- as locals: they are called for every member
local tables, code_bytes, width = 0, 0, SIGNATURE_BYTES
local places = {} -- generation -> item number -> its place as this script leaves it, to be stored
local allocated = {} -- keys of blocks that are known to be there
local loaded = {} -- key of a block -> its places as they were before this script, read at once
local block_keys = {} -- generation -> block -> its key
local parts = {} -- generation -> its tables as this script has met them

-- How places are laid out: what the partition's state says of tables and bytes of a code.
local function set_layout(stored_tables, stored_code_bytes)
  tables, code_bytes = tonumber(stored_tables or '0'), tonumber(stored_code_bytes or '0')
  width = SIGNATURE_BYTES + tables * code_bytes
end

-- Whether the index of this nonce was dropped.
local function dropped(nonce)
  return redis.call('EXISTS', prefix .. 'dropped:' .. nonce) == 1
end

local function digits(number)
  return format('%.0f', number)
end

-- high * 2^40 + low as decimal digits; high is below 2^23 and low below 2^40. 2^40 is 1099 * 10^9 + 511627776,
-- and no sum here reaches 2^53.
local function decimal(high, low)
  if high == 0 then
    return format('%d', low)
  end
  low = low + high * 511627776
  local carry = math.floor(low / 1000000000)
  return format('%d%09d', high * 1099 + carry, low - carry * 1000000000)
end

-- The bytes first to last of a text as a big-endian number; 0 when there are none. At most 6 bytes fit.
local function big_endian(text, first, last)
  local number = 0
  for position = first, last do
    number = number * 256 + byte(text, position)
  end
  return number
end

-- The member of an item: its 39-bit signature shifted left by 24 bits, plus its number.
local function member_of(place, number)
  local first, second, third, fourth, fifth = byte(place, 1, SIGNATURE_BYTES)
  local high = (first - 128) * 65536 + second * 256 + third -- without the bit that says it is occupied
  return decimal(high, (fourth * 256 + fifth) * CAPACITY + number)
end

-- The code in a place whose bytes begin after `before`.
local function code_of(place, before)
  local last = before + code_bytes
  if code_bytes == 2 then -- 9 to 16 bits are common
    local first, second = byte(place, last - 1, last)
    return format('%d', first * 256 + second)
  end
  return decimal(big_endian(place, before + 1, last - 5), big_endian(place, math.max(before + 1, last - 4), last))
end

-- The tables of a generation: where their keys begin, how many members this script has added to them, and the codes
-- of the buckets that it has opened: those that were empty.
local function tables_of(generation)
  local known = parts[generation]
  if not known then
    known = {}
    for table_number = 0, tables - 1 do
      local at = generation .. ':' .. table_number
      known[table_number + 1] = {
        bucket = prefix .. 'bucket:' .. at .. ':',
        directory = prefix .. 'directory:' .. at,
        members = 'members:' .. at,
        list = prefix .. 'opened:' .. at,
        cleared = 'cleared:' .. at,
        opened = {},
        added = 0
      }
    end
    parts[generation] = known
  end
  return known
end

local function add_members(generation, number, place)
  local member, before = member_of(place, number), SIGNATURE_BYTES
  for _, part in ipairs(tables_of(generation)) do
    local code = code_of(place, before)
    if redis.call('SADD', part.bucket .. code, member) == 1 then
      if redis.call('HINCRBY', part.directory, code, 1) == 1 then
        part.opened[#part.opened + 1] = code
      end
      part.added = part.added + 1
    end
    before = before + code_bytes
  end
end

local function remove_members(generation, number, place)
  local member, before = member_of(place, number), SIGNATURE_BYTES
  for _, part in ipairs(tables_of(generation)) do
    local code = code_of(place, before)
    if redis.call('SREM', part.bucket .. code, member) == 1 then
      if redis.call('HINCRBY', part.directory, code, -1) <= 0 then
        redis.call('HDEL', part.directory, code)
      end
      part.added = part.added - 1
    end
    before = before + code_bytes
  end
end

local function block_key(generation, number)
  local keys, block = block_keys[generation], (number - number % BLOCK) / BLOCK
  if not keys then
    keys = {}
    block_keys[generation] = keys
  end
  if not keys[block] then
    keys[block] = prefix .. 'places:' .. generation .. ':' .. digits(block)
  end
  return keys[block]
end

-- Read the places of a number's whole block at once: for scripts that ask for many of them.
local function load_block(generation, number)
  local key = block_key(generation, number)
  loaded[key] = loaded[key] or redis.call('GET', key) or ''
end

-- The place of an item number, false when it is free.
local function place_of(generation, number)
  local place = places[generation] and places[generation][number]
  if not place then
    local key, offset = block_key(generation, number), number % BLOCK * width
    if loaded[key] then
      place = string.sub(loaded[key], offset + 1, offset + width)
    else
      place = redis.call('GETRANGE', key, offset, offset + width - 1)
    end
    if place == '' then
      return false
    end
    allocated[key] = true
  end
  return byte(place, 1) >= 128 and place
end

local function set_place(generation, number, place)
  places[generation] = places[generation] or {}
  places[generation][number] = place
end

-- Put an item that is nowhere in the generation into its buckets.
local function occupy(generation, number, place)
  add_members(generation, number, place)
  set_place(generation, number, place)
end

-- Move an item from the buckets it is in to others, or out of all of them when `place` is false.
local function move(generation, number, place)
  local before = place_of(generation, number)
  if before == place then
    return
  end
  if before then
    remove_members(generation, number, before) -- rule: stored codes
  end
  if place then
    add_members(generation, number, place)
  end
  set_place(generation, number, place or string.rep('\0', width))
end

-- Tell searchers of the buckets that this script has opened. Each remembers how far it has read the list, and how often
-- it had been begun anew. It is, when it has an eighth as many codes as the directory: who has not read it until then
-- reads the directory again, at a cost of a few codes for each that was new.
local function store_opened(part)
  if part.opened[1] then
    local length = redis.call('RPUSH', part.list, unpack(part.opened))
    if length >= math.max(OPENED, redis.call('HLEN', part.directory) / 8) then
      redis.call('UNLINK', part.list)
      redis.call('HINCRBY', KEYS[1], part.cleared, 1)
    end
  end
end

-- Store what changed in places, counts and opened buckets. Neighbours go in one call: new items have consecutive numbers.
local function store_places()
  for generation, changed in pairs(places) do
    local numbers = {}
    for number in pairs(changed) do
      numbers[#numbers + 1] = number
    end
    table.sort(numbers)
    local first = 1
    while first <= #numbers do
      local last, key = first, block_key(generation, numbers[first])
      local run = {changed[numbers[first]]}
      while numbers[last + 1] == numbers[last] + 1 and numbers[last + 1] % BLOCK ~= 0 do
        last = last + 1
        run[#run + 1] = changed[numbers[last]]
      end
      if not allocated[key] and redis.call('STRLEN', key) == 0 then
        redis.call('SETRANGE', key, BLOCK * width - 1, '\0') -- all of it at once: a string that grows doubles
      end
      allocated[key] = true
      redis.call('SETRANGE', key, numbers[first] % BLOCK * width, table.concat(run))
      first = last + 1
    end
  end
  for _, known in pairs(parts) do
    for _, part in ipairs(known) do
      if part.added ~= 0 and redis.call('HINCRBY', KEYS[1], part.members, part.added) == 0 then
        redis.call('HDEL', KEYS[1], part.members)
      end
      store_opened(part)
    end
  end
end
