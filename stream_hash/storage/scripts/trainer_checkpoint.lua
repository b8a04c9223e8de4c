-- Keep a learner's state and the record of a run: both, or neither.
--
-- KEYS[1]  the index's trainer
-- ARGV[1]  nonce   ARGV[2]  token   ARGV[3]  the run's id and   ARGV[4]  its JSON, both '' for none
-- ARGV[5]  how many runs to keep   ARGV[6]  the learner's state, absent for none
-- Returns  {'OK', 1 when something was stored} or {'FENCED', newest token}
--
-- Rule: a run is recorded once; repeating it, with its learner, changes nothing.

if fenced(ARGV[2]) then -- rule: fence
  return {'FENCED', newest}
end
if ARGV[3] ~= '' then
  local last = redis.call('LINDEX', prefix .. 'runs', 0)
  if last and cjson.decode(last).id == ARGV[3] then -- rule: once
    return {'OK', 0}
  end
  redis.call('LPUSH', prefix .. 'runs', ARGV[4])
  redis.call('LTRIM', prefix .. 'runs', 0, tonumber(ARGV[5]) - 1)
end
if ARGV[6] then
  redis.call('SET', prefix .. 'learner', ARGV[6])
end
return {'OK', 1}
