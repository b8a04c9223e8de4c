-- Publish the model of a generation; the first to come is kept, for ever.
--
-- KEYS[1]  the index's generations   KEYS[2]  the model's key
-- ARGV[1]  generation   ARGV[2]  JSON record with the SHA-256 of the bytes   ARGV[3]  npz bytes
-- ARGV[4]  nonce of the index
-- Returns  the record that stands now, or nothing when the generation was forgotten since, or 'ANOTHER' when the
--          index was wiped, be it that one of its name was created since
--
-- Rules
--   1. A number is never used again, not even by a worker that was paused until its model was forgotten.
--   2. Nothing is published in an index that was dropped.

local prefix = string.sub(KEYS[1], 1, -12) -- without 'generations'
local settings = redis.call('GET', prefix .. 'settings')
-- an index that is being imported has its models before it has settings
local nonce = settings and cjson.decode(settings).nonce or redis.call('HGET', prefix .. 'import', 'nonce')
if nonce ~= ARGV[4] then -- rule: the same index
  return 'ANOTHER'
end

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  for _, generation in ipairs(redis.call('HKEYS', KEYS[1])) do
    if tonumber(generation) > tonumber(ARGV[1]) then -- rule: never again
      return false
    end
  end
  redis.call('SET', KEYS[2], ARGV[3])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return redis.call('HGET', KEYS[1], ARGV[1])
