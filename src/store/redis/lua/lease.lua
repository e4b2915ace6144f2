-- Leases jobs, going round. ARGV: 4 how many, 5 the deadline, 6 how many jobs one lane gives before the next has its turn,
-- 7 how long an owner may be silent before its leases go back, 8 how long a silence of everybody must be to be the
-- server's own, 9 how many jobs batches may bring. A batch counts as one job. Answers: whether to call again at once, when
-- something happens by itself (0 for never), whether another process holds leases here; then of each lease id, token, what
-- it is (1 one of a batch, 2 the batch's first, 4 an earlier lease may have been lost), and its lane's failures in a row
-- with the time of the first.
local room, deadline, quantum = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local silence, gap, batched = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local STEP = 64
-- Where nothing is open nothing can happen.
if S[S_OPEN] <= 0 and S[S_RING] == 0 and S[S_LEASED] == 0 then return { 0, 0, 0 } end
local again = false

-- Time passes: timers fire, leases end, dead owners lose theirs. By the server's own clock where processes are compared.
local time = call('TIME')
local server_now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local server_slept = server_now - S[S_SEEN] > gap
if server_slept then S[S_GRACE] = server_now + silence end
S[S_SEEN] = server_now

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

local ended = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, STEP)
for _, id in ipairs(ended) do
  local held = held_by(id)
  if held then give_back(id, held, true) else call('ZREM', LEASES, id) end
end
again = again or #ended == STEP

local others = false
local oldest = call('ZRANGE', OWNERS, 0, 1, 'WITHSCORES')
for index = 1, #oldest, 2 do
  local owner, beat = oldest[index], tonumber(oldest[index + 1])
  if owner ~= me then
    others = true
    if server_now - beat > silence and server_now > S[S_GRACE] then
      local orphans = call('ZRANGEBYLEX', OWNED, '[' .. owner, '(' .. owner .. '\255\255', 'LIMIT', 0, STEP)
      for _, member in ipairs(orphans) do
        local id = member:sub(#owner + 1)
        local held = held_by(id)
        if held and held[2] == owner then give_back(id, held, true) else call('ZREM', OWNED, member) end
      end
      if #orphans < STEP then call('ZREM', OWNERS, owner) else again = true end
      others = call('ZCARD', OWNERS) > 1
    end
    break
  end
end
-- What came back goes round at once.
for _, connection in ipairs(touched_order) do wake(connection, touched[connection]) end

local answer = { 0, 0, 0 }
local given, jobs = 0, 0

local function give(connection, l, member)
  local place, id = member:sub(17, -17), member:sub(-16)
  S[S_TOKEN] = S[S_TOKEN] + 1
  call('ZREM', QUEUE, member)
  call('HSET', HELD, id, cmsgpack.pack({ S[S_TOKEN], me, connection, place }))
  call('ZADD', LEASES, deadline, id)
  call('ZADD', OWNED, 0, me .. id)
  l[LEASED] = l[LEASED] + 1
  S[S_LEASED] = S[S_LEASED] + 1
  local what = made_at(id) <= l[DOUBT] and 4 or 0
  if l[BATCH] == 1 then
    given = given + 1
  elseif l[LEASED] == 1 then
    given = given + 1
    what = what + 3
  else
    what = what + 1
  end
  jobs = jobs + 1
  answer[#answer + 1] = id
  answer[#answer + 1] = S[S_TOKEN]
  answer[#answer + 1] = what
  answer[#answer + 1] = l[FAILURES]
  answer[#answer + 1] = l[SINCE]
end

local function turn(connection, l)
  local want = math.min(quantum, room - given, l[WIDTH] - l[LEASED])
  if l[BATCH] > 1 then want = l[LEASED] == 0 and l[BATCH] or 0 end
  if is_held(l) or want <= 0 then return end
  local first, last = '[' .. connection .. 'D', '(' .. connection .. 'D' .. number(now + 1, 6)
  local retries = call('ZRANGEBYLEX', QUEUE, first, last, 'LIMIT', 0, want)
  for _, member in ipairs(retries) do give(connection, l, member) end
  want = want - #retries
  if want <= 0 then return end
  if l[CAP] == 1 then
    -- A retry that waits holds back what stands behind it.
    local waits = call('ZRANGEBYLEX', QUEUE, first, '(' .. connection .. 'E', 'LIMIT', 0, 1)
    if #waits > 0 then return end
  end
  local fresh = call('ZRANGEBYLEX', QUEUE, '[' .. connection .. 'F', '(' .. connection .. 'G', 'LIMIT', 0, want)
  for _, member in ipairs(fresh) do give(connection, l, member) end
end

local turns = 0
while given < room and jobs < room + batched and turns < 2 * STEP do
  turns = turns + 1
  local tenant = call('ZRANGE', TENANTS, 0, 0)[1]
  if not tenant then break end
  local lower, upper = '[' .. tenant .. '\0', '(' .. tenant .. '\1'
  local member = call('ZRANGEBYLEX', READY, lower, upper, 'LIMIT', 0, 1)[1]
  if member then
    call('ZREM', READY, member)
    S[S_RING] = S[S_RING] - 1
    local connection = member:sub(-16)
    local l = lane(connection)
    if l then
      l[IN_RING] = 0
      turn(connection, l)
      wake(connection, l)
    end
  end
  local more = call('ZRANGEBYLEX', READY, lower, upper, 'LIMIT', 0, 1)[1]
  if more then
    S[S_TURN] = S[S_TURN] + 1
    call('ZADD', TENANTS, S[S_TURN], tenant)
  else
    call('ZREM', TENANTS, tenant)
  end
end

if given > 0 then call('ZADD', OWNERS, server_now, me) end
-- Who calls knows already, and others ask again while this process holds leases.
finish(true)
again = again or S[S_RING] > 0
local next_time = next_timer()
local next_end = tonumber(call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2])
if next_end and (next_time == 0 or next_end < next_time) then next_time = next_end end
answer[1] = again and 1 or 0
answer[2] = next_time
answer[3] = others and 1 or 0
return answer
