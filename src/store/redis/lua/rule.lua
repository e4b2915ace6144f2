-- Mirrors what the records say of lanes. ARGV from 4 on, eight for each: connection, revision, tenant, concurrency, paused,
-- closed, deleted, the pending effect that this resolves (empty for none). An older revision changes nothing.
local EACH = 8
for at = COMMON, #ARGV - EACH, EACH do
  local connection, revision, tenant = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local cap, paused, closed = math.max(tonumber(ARGV[at + 4]), 1), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local l = lane(connection)
  if not l then
    l = { 0, tenant, cap, cap, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
    touched[connection] = l
    touched_order[#touched_order + 1] = connection
  end
  if revision > l[REV] then
    if l[IN_RING] == 0 then l[TENANT] = tenant end
    -- Whoever resumes a lane says that its endpoint works.
    local resumed = (l[IS_PAUSED] == 1 or l[IS_CLOSED] == 1) and paused == 0 and closed == 0
    l[REV], l[CAP], l[IS_PAUSED], l[IS_CLOSED] = revision, cap, paused, closed
    l[WIDTH] = resumed and cap or math.min(math.max(l[WIDTH], 1), cap)
    if resumed then l[FAILURES], l[SINCE] = 0, 0 end
    if closed == 1 and l[OPEN] > 0 then close(connection) end
    if ARGV[at + 7] == '1' then call('ZADD', GONE, now, connection) end
  end
  if ARGV[at + 8] ~= '' and call('HGET', PENDING, connection) == ARGV[at + 8] then call('HDEL', PENDING, connection) end
end
finish()
return { S[S_RING], next_timer() }
