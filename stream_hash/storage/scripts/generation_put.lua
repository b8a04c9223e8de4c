-- Put items of a chunk into the generation that is being built. Repeating it changes nothing.
--
-- KEYS[1]  the partition's state
-- ARGV[1]  the generation   ARGV[2]  the index's nonce   ARGV[3]  the chunk
-- ARGV[4]  '1' when these are the last of the chunk
-- ARGV[5]  the items, each: number (3 bytes, big-endian), the first 8 bytes of the value that was hashed
--          (its sequence number), place
-- Returns  {'OK', items put} or {'STALE', live, building}
--
-- Rules
--   1. Only a generation that is being built is put into: not one that was abandoned, or is live by now.
--   2. An item is put only if its value still has the sequence number that was read. It needs no second look: the
--      write that changed it came after the generation was begun, and so put it there itself.
--   3. An item that has a place there already keeps it, and is not counted twice.

if building ~= generation then -- rule: being built
  return {'STALE', live, building}
end
-- a removal first: a server out of memory refuses a script only at a first write that may grow
redis.call('HDEL', KEYS[1], '')
local put = 0
for start = 1, #ARGV[5], 11 + width do
  local number = big_endian(ARGV[5], start, start + 2)
  local sequence = redis.call('GETRANGE', prefix .. 'value:' .. digits(number), 0, 7)
  load_block(generation, number)
  if sequence == string.sub(ARGV[5], start + 3, start + 10) -- rule: sequence
      and not place_of(generation, number) then -- rule: once
    occupy(generation, number, string.sub(ARGV[5], start + 11, start + 10 + width))
    put = put + 1
  end
end
store_places()
if ARGV[4] == '1' then
  redis.call('SETBIT', built_key(), ARGV[3], 1)
end
return {'OK', put}
