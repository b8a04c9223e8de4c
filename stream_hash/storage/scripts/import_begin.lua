-- Begin to import an index, or go on with the same import.
--
-- KEYS[1]  the index's settings; the others share its hash tag
-- ARGV[1]  digest of the archive   ARGV[2]  settings of the index to be   ARGV[3]  a fresh nonce for it
-- ARGV[4]  the last sequence number of the archive, so far as is known   ARGV[5]  now (Unix seconds)
-- Returns  {'OK', nonce, blocks that are done, items of these}   {'DONE'} the index stands, imported from this archive
--          {'EXISTS'} another stands   {'OTHER', since} another import is under way   {'DOOMED'} it is being given up
--          or an error that begins with DROPPING when one of the name is still being dropped
--
-- Rules
--   1. An index is imported from one archive, with one nonce, be it in several attempts.
--   2. None is imported among the keys of another that are going.

local prefix = string.sub(KEYS[1], 1, -9) -- without 'settings'
local standing = redis.call('GET', KEYS[1])
if standing then
  return {cjson.decode(standing).imported == ARGV[1] and 'DONE' or 'EXISTS'}
end
if redis.call('EXISTS', prefix .. 'dropping') == 1 then -- rule: not among what goes
  return {err = 'DROPPING the index is being dropped'}
end
local import = redis.call('HMGET', prefix .. 'import', 'archive', 'settings', 'nonce', 'done', 'items', 'since')
if import[1] then
  if import[3] == '' then
    return {'DOOMED'}
  end
  if import[1] ~= ARGV[1] or import[2] ~= ARGV[2] then -- rule: one archive
    return {'OTHER', import[6]}
  end
  return {'OK', import[3], import[4], import[5]}
end
redis.call('HSET', prefix .. 'import', 'archive', ARGV[1], 'settings', ARGV[2], 'nonce', ARGV[3],
  'done', 0, 'items', 0, 'since', ARGV[5])
if tonumber(redis.call('GET', prefix .. 'sequence') or '0') < tonumber(ARGV[4]) then
  redis.call('SET', prefix .. 'sequence', ARGV[4])
end
return {'OK', ARGV[3], '0', '0'}
