-- Leases jobs, going round. ARGV: 4 how many, 5 the deadline, 6 how many jobs one lane gives before the next has its turn,
-- 7 how many jobs batches may bring. A batch counts as one job. Answers: whether to call again at once, when
-- something happens by itself (0 for never), whether another process holds leases here, how often something was erased
-- here, and the leases (`GIVEN`).
local room, deadline, quantum, batched = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local STEP = 64
-- Where nothing is open nothing can happen.
if S[S_OPEN] <= 0 and S[S_RING] == 0 and S[S_LEASED] == 0 then return { 0, 0, 0, S[S_ERASED], '' } end
local again = false

-- Time passes: timers fire, leases end, dead owners lose theirs. By the server's own clock where processes are compared.
local server_now = server_time()

local due = call('ZRANGEBYSCORE', TIMERS, '-inf', now, 'LIMIT', 0, STEP)
for _, connection in ipairs(due) do
  local l = lane(connection)
  if l then
    l[TIMER] = 0
    call('ZREM', TIMERS, connection)
    wake(connection, l)
  else
    call('ZREM', TIMERS, connection)
  end
end
again = again or #due == STEP

-- Leases that ended and those of owners that fell silent go back. Both are rare, so there is no index of either: all leases are
-- walked through, some in each call, from when one may have ended or somebody is silent. An owner that was silent when a walk
-- began has none left at its end. Gives how many owners are silent too long, and whether there are others.
local function look_for_silent()
  local silent, has_others = {}, false
  local oldest = call('ZRANGE', OWNERS, 0, 1, 'WITHSCORES')
  for index = 1, #oldest, 2 do has_others = has_others or oldest[index] ~= me end
  local from = S[S_WALK] > 0 and S[S_WALKED_FROM] or server_now
  if has_others and from > S[S_GRACE] then
    for _, owner in ipairs(call('ZRANGEBYSCORE', OWNERS, '-inf', '(' .. (from - SILENCE))) do
      if owner ~= me then silent[#silent + 1] = owner end
    end
  end
  return silent, has_others
end

local function walk(silent)
  local is_silent = {}
  for _, owner in ipairs(silent) do is_silent[owner] = true end
  if S[S_WALK] == 0 then S[S_WALKED_FROM], S[S_WALK_ENDS] = server_now, 0 end
  local found = call('HSCAN', HELD, S[S_WALK], 'COUNT', WALKED)
  S[S_WALK] = tonumber(found[1])
  for at = 1, #found[2], 2 do
    local id = found[2][at]
    -- What a table that grows has moved may be met twice.
    local held = held_of(id, found[2][at + 1])
    if held and (is_silent[held[2]] or held[5] <= now) then
      give_back(id, held, true)
    elseif held then
      note_end(held[5])
    end
  end
  if S[S_WALK] > 0 then return true end
  S[S_ENDS] = S[S_WALK_ENDS]
  with_all('ZREM', OWNERS, silent)
  return false
end

local silent, others = look_for_silent()
if S[S_WALK] > 0 or #silent > 0 or (S[S_ENDS] > 0 and S[S_ENDS] <= now) then
  again = walk(silent) or again
  silent, others = look_for_silent()
end
-- What came back goes round at once.
write_back()
for _, connection in ipairs(touched_order) do wake(connection, touched[connection]) end

local turns = 0
while given < room and jobs < room + batched and turns < 2 * STEP do
  turns = turns + 1
  local tenant = call('ZRANGE', TENANTS, '0', '0')[1]
  if not tenant then break end
  local lower, upper = '[' .. tenant .. '\0', '(' .. tenant .. '\1'
  local member = call('ZRANGEBYLEX', READY, lower, upper, 'LIMIT', '0', '1')[1]
  if member then
    call('ZREM', READY, member)
    S[S_RING] = S[S_RING] - 1
    local connection = member:sub(-16)
    local l = lane(connection)
    if l then
      l[IN_RING] = 0
      -- One that nobody waits behind need not stop for others.
      wake(connection, l, turn(connection, l, math.min(S[S_RING] > 0 and quantum or room, room - given), deadline))
    end
  end
  local more = S[S_RING] > 0 and call('ZRANGEBYLEX', READY, lower, upper, 'LIMIT', '0', '1')[1]
  if more then
    S[S_TURN] = S[S_TURN] + 1
    call('ZADD', TENANTS, S[S_TURN], tenant)
  else
    call('ZREM', TENANTS, tenant)
  end
end

write_leases(server_now, deadline)
-- Who calls knows already, and others ask again while this process holds leases.
finish(true)
again = again or S[S_RING] > 0
local next_time = next_timer()
if S[S_LEASED] > 0 and S[S_ENDS] > 0 and (next_time == 0 or S[S_ENDS] < next_time) then next_time = S[S_ENDS] end
return { again and 1 or 0, next_time, others and 1 or 0, S[S_ERASED], table.concat(answered) }
