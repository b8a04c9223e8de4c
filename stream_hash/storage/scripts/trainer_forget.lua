-- Forget the models and records of old generations.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  nonce   ARGV[2]  token   ARGV[3]  how many of the newest to keep
-- ARGV[4+] generations in use, kept in any case
-- Returns  {'OK', generation forgotten, ...} or {'FENCED', newest token}
--
-- Rule: the target and what is in use are kept, however old. The newest is, too: the next number follows from it.

if fenced(ARGV[2]) then -- rule: fence
  return {'FENCED', newest}
end
local kept = {}
for position = 4, #ARGV do
  kept[ARGV[position]] = true
end
kept[redis.call('HGET', KEYS[1], 'target') or ''] = true -- rule: target
local generations = redis.call('HKEYS', prefix .. 'generations')
table.sort(generations, function(one, other) return tonumber(one) > tonumber(other) end)
local reply = {'OK'}
for position = math.max(1, tonumber(ARGV[3])) + 1, #generations do
  local generation = generations[position]
  if not kept[generation] then
    redis.call('UNLINK', prefix .. 'model:' .. generation)
    redis.call('HDEL', prefix .. 'generations', generation)
    reply[#reply + 1] = generation
  end
end
return reply
