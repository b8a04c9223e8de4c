-- Publish the model that every partition shall use, under the next generation number.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  nonce   ARGV[2]  token   ARGV[3]  SHA-256 of the bytes   ARGV[4]  JSON record with it   ARGV[5]  npz bytes
-- ARGV[6]  JSON object without the field generation: the record of the run that published it, absent for none
-- ARGV[7]  how many runs to keep
-- Returns  {'OK', generation, the record that stands}   {'NONE'} there is no first generation yet
--          {'FENCED', newest token}
--
-- Rules
--   1. A generation's number is above all before it, and its model, record, run and the target change at once.
--   2. Publishing again what is the target already answers with its number: the reply may have been lost.

if fenced(ARGV[2]) then -- rule: fence
  return {'FENCED', newest}
end
local target = redis.call('HGET', KEYS[1], 'target')
local record = target and redis.call('HGET', prefix .. 'generations', target)
if record and cjson.decode(record).sha256 == ARGV[3] then -- rule: once
  return {'OK', target, record}
end
local last = 0
for _, generation in ipairs(redis.call('HKEYS', prefix .. 'generations')) do
  last = math.max(last, tonumber(generation))
end
if last == 0 then
  return {'NONE'}
end
local generation = string.format('%.0f', last + 1)
redis.call('SET', prefix .. 'model:' .. generation, ARGV[5])
redis.call('HSET', prefix .. 'generations', generation, ARGV[4])
redis.call('HSET', KEYS[1], 'target', generation) -- rule: target
if ARGV[6] then
  -- not decoded and encoded again: cjson keeps 14 digits of a number
  redis.call('LPUSH', prefix .. 'runs', '{"generation": ' .. generation .. ', ' .. string.sub(ARGV[6], 2))
  redis.call('LTRIM', prefix .. 'runs', 0, tonumber(ARGV[7]) - 1)
end
return {'OK', generation, ARGV[4]}
