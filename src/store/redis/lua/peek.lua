-- What upkeep finds to do in a partition; changes nothing but forgetting lanes. ARGV: 4 the last event's entry of the walk
-- so far (empty at first), 5 the entry that events past their retention sort before, 6 how many of each, 7 the time
-- before which the lanes of deleted connections are forgotten. The last answer is the first event that is not old.
local limit = tonumber(ARGV[6])
local all_closing = call('ZCARD', CLOSING)
local closing = call('ZRANGE', CLOSING, 0, 0)[1] or ''
local members = {}
if closing ~= '' then
  members = call('ZRANGEBYLEX', QUEUE, '[' .. closing .. 'D', '(' .. closing .. 'G', 'LIMIT', 0, limit)
end
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
return { closing, members, old, pending, all_closing, young }
