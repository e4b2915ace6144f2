-- What upkeep finds to do in a partition; changes nothing but forgetting lanes. ARGV: 4 the last event's entry of the walk
-- so far (empty at first), 5 the entry that events past their retention sort before, 6 how many of each, 7 the time
-- before which the lanes of deleted connections are forgotten. The last answers are the first event that is not old, and
-- large requests that were staged or accepted, oldest first of each, with their times.
local limit = tonumber(ARGV[6])
-- Lanes to cancel, as many as have so many jobs together: connection, members of the queue, whether these are all, the time
-- before which jobs are not wanted (0 where none of them is).
local LANES_AT_ONCE = 50
local room, closing = limit, {}
for _, connection in ipairs(call('ZRANGE', CLOSING, 0, LANES_AT_ONCE - 1)) do
  if room <= 0 then break end
  local l = lane(connection)
  local unwanted = l and l[IS_CLOSED] == 0 and l[UNWANTED] or 0
  local first = '[' .. connection .. 'D'
  if unwanted > 0 and l[SEEN] ~= '' then first = '(' .. l[SEEN] end
  local members = call('ZRANGEBYLEX', QUEUE, first, '(' .. connection .. 'G', 'LIMIT', 0, room)
  room = room - #members
  closing[#closing + 1] = { connection, members, room > 0 and 1 or 0, unwanted }
end
local left = call('ZCARD', CLOSING) - #closing
local first = ARGV[4] == '' and '-' or '(' .. ARGV[4]
local old = call('ZRANGEBYLEX', EVENTS, first, '(' .. ARGV[5], 'LIMIT', 0, limit)
local young = call('ZRANGEBYLEX', EVENTS, '[' .. ARGV[5], '+', 'LIMIT', 0, 1)[1] or ''
local pending = call('HSCAN', PENDING, 0, 'COUNT', 100)[2]
for _, connection in ipairs(call('ZRANGEBYSCORE', GONE, '-inf', ARGV[7], 'LIMIT', 0, limit)) do
  local l = lane(connection)
  if not l or (l[OPEN] <= 0 and l[IS_CLOSED] == 1 and l[IN_RING] == 0) then
    call('HDEL', LANES, connection)
    call('ZREM', GONE, connection)
  else
    call('ZADD', GONE, now, connection)
  end
end
local large = {}
for _, index in ipairs({ STAGED, ACCEPTED }) do
  for _, part in ipairs(call('ZRANGE', index, 0, 3, 'WITHSCORES')) do large[#large + 1] = part end
end
return { closing, left, old, pending, young, large }
