-- Delete a piece of a generation that is in use no more. Begun with 'buckets' and '0' and repeated with what it
-- returned until that is 'done', it leaves nothing; begun anew after a crash, it does the rest.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce
-- ARGV[3]  what to delete: 'buckets' or 'places'   ARGV[4]  where to go on   ARGV[5]  how many keys to delete, about
-- Returns  {what comes next, where to go on}, at the end {'done', '0'}, or {'IN USE', live, building}
--
-- Rules
--   1. What is live or being built is never touched.
--   2. Buckets are found through their directory, and leave it in the same script; places by the item numbers.
--      The generation stays in the list of those retiring until all else is gone.

if live == generation or building == generation then -- rule: in use
  return {'IN USE', live, building}
end
local most = tonumber(ARGV[5])
for table_number = 0, tables - 1 do
  local at = generation .. ':' .. table_number
  local directory = prefix .. 'directory:' .. at
  if redis.call('EXISTS', directory) == 1 then
    local piece = redis.call('HSCAN', directory, ARGV[3] == 'buckets' and ARGV[4] or '0', 'COUNT', most)
    local codes, buckets = {}, {}
    for position = 1, #piece[2], 2 do
      codes[#codes + 1] = piece[2][position]
      buckets[#buckets + 1] = prefix .. 'bucket:' .. at .. ':' .. piece[2][position]
    end
    if codes[1] then
      redis.call('UNLINK', unpack(buckets))
      redis.call('HDEL', directory, unpack(codes))
    end
    -- the next table begins at the beginning
    return {'buckets', redis.call('EXISTS', directory) == 1 and piece[1] or '0'}
  end
end
if ARGV[3] == 'buckets' then
  return {'places', '0'}
end
local block, blocks = tonumber(ARGV[4]), math.ceil(next_number / BLOCK)
local keys = {}
while block < blocks and #keys < most do
  keys[#keys + 1] = prefix .. 'places:' .. generation .. ':' .. digits(block)
  block = block + 1
end
if keys[1] then
  redis.call('UNLINK', unpack(keys))
end
if block < blocks then
  return {'places', digits(block)}
end
for table_number = 0, tables - 1 do
  redis.call('HDEL', KEYS[1], 'members:' .. generation .. ':' .. table_number)
  redis.call('HDEL', KEYS[1], 'cleared:' .. generation .. ':' .. table_number)
  redis.call('UNLINK', prefix .. 'opened:' .. generation .. ':' .. table_number)
end
local left = {}
for other in string.gmatch(retiring, '[^,]+') do
  if other ~= generation then
    left[#left + 1] = other
  end
end
-- a removal came first: a server out of memory refuses a script only at a first write that may grow
redis.call('UNLINK', built_key())
redis.call('HSET', KEYS[1], 'retiring', table.concat(left, ','))
return {'done', '0'}
